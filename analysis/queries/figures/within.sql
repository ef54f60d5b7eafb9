-- Accuracy of some cells ($cells) in the tables of queries/scores.sql, whose attacks look for the smallest perturbation,
-- within radii ($radii, in [0, 1] pixels, each of the norm that stands beside it in $threats): the image counts as it is
-- where the attack needs more. Seeds are averaged within an example.
WITH cells AS (
    SELECT unnest($cells) AS cell
), radii AS (
    SELECT unnest($threats) AS threat, unnest($radii)::DOUBLE AS radius
), by_example AS (
    SELECT cell, threat, radius, example,
        -- A millionth more than the radius: distances are stored in single precision.
        avg(CASE WHEN CASE threat WHEN 'l2' THEN l2 ELSE linf END <= 1.000001 * radius
            THEN score ELSE natural_score END) AS score
    FROM scores('expected') JOIN cells USING (cell) CROSS JOIN radii
    GROUP BY ALL
)
SELECT cell AS number, threat, radius AS x, count(*) AS n, round(avg(score), 12) AS accuracy
FROM by_example GROUP BY ALL
ORDER BY number, threat, x
