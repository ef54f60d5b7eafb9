-- Accuracy on adversarial examples of one path, answered along another of a given path difference, for each network of a
-- sweep ($sweep): the mean over pairs of paths, the worst and the best of them, and their variance. Seeds are pairs too.
WITH asked AS (
    SELECT unit_id, variant, axes, min(position) AS position
    FROM plans WHERE sweep = $sweep AND kind = 'probe' GROUP BY ALL
), by_pair AS (
    SELECT variant, path_difference, axes, pair, avg((prediction = label)::INT) AS accuracy, min(position) AS position
    FROM transfers JOIN asked USING (unit_id)
        JOIN (SELECT unit_id FROM probes WHERE probe = 'path-transfer') USING (unit_id)
    GROUP BY ALL
), images AS (
    SELECT variant, path_difference, count(DISTINCT example) AS n
    FROM transfers JOIN asked USING (unit_id)
        JOIN (SELECT unit_id FROM probes WHERE probe = 'path-transfer') USING (unit_id)
    GROUP BY ALL
)
SELECT variant, path_difference, round(avg(accuracy), 12) AS accuracy,
    round(min(accuracy), 12) AS worst, round(max(accuracy), 12) AS best,
    var_samp(accuracy) / count(*) AS pair_variance, count(*) AS pairs, any_value(n) AS n, count(DISTINCT axes) AS seeds
FROM by_pair JOIN images USING (variant, path_difference)
GROUP BY variant, path_difference
ORDER BY min(position), variant, path_difference
