-- For each asked-for pair of cells (variable pairs: a list of distinct {cell, reference}), how the score of the one differs
-- from the other's on the examples that both have: differences (a histogram), and batches (sums of differences over the
-- examples of a batch, where either shares paths; the larger batches decide).
WITH pairs AS (
    SELECT pair.cell, pair.reference FROM (SELECT unnest(getvariable('pairs')) AS pair)
), paired AS (
    SELECT pairs.cell, reference, a.answer, a.score - b.score AS difference, a.shared OR b.shared AS shared,
        CASE WHEN b.shared AND (b.batch > a.batch OR NOT a.shared) THEN b.block ELSE a.block END AS block
    FROM pairs
        JOIN by_example AS a ON a.cell = pairs.cell
        JOIN by_example AS b ON b.cell = pairs.reference AND a.answer = b.answer AND a.example = b.example
), histogram AS (
    SELECT cell, reference, answer, list({'difference': difference, 'n': n}) AS differences
    FROM (
        SELECT cell, reference, answer, round(difference, 9) AS difference, count(*) AS n FROM paired GROUP BY ALL
    ) GROUP BY ALL
), batches AS (
    SELECT cell, reference, answer, list({'total': total, 'size': size}) AS batches
    FROM (
        SELECT cell, reference, answer, sum(difference) AS total, count(*) AS size
        FROM paired WHERE shared GROUP BY cell, reference, answer, block
    ) GROUP BY ALL
)
SELECT cell, reference, answer, differences, batches
FROM histogram LEFT JOIN batches USING (cell, reference, answer)
ORDER BY cell, reference, answer
