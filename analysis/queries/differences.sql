-- For each asked-for pair of cells (variable pairs: a list of distinct {cell, reference}), how the score of the one differs
-- from the other's on the examples that both have: differences (a histogram), and batches (sums of differences over the
-- examples of a batch, where either shares paths; the larger batches decide).
WITH pairs AS (
    SELECT pair.cell, pair.reference FROM (SELECT unnest(getvariable('pairs')) AS pair)
), paired AS (
    SELECT a.cell, reference, a.answer, a.score - b.score AS difference,
        CASE WHEN b_block.batch > a_block.batch OR a_block.batch IS NULL THEN b_block.block ELSE a_block.block END AS block
    FROM by_example AS a JOIN pairs ON pairs.cell = a.cell
        JOIN (SELECT * FROM by_example SEMI JOIN pairs ON reference = by_example.cell) AS b
            ON b.cell = reference AND b.answer = a.answer AND b.example = a.example
        LEFT JOIN blocks AS a_block ON a_block.cell = a.cell AND a_block.example = a.example
        LEFT JOIN blocks AS b_block ON b_block.cell = b.cell AND b_block.example = b.example
    WHERE list_contains(getvariable('answers'), a.answer::VARCHAR)
), histogram AS (
    SELECT cell, reference, answer, list({'difference': difference, 'n': n}) AS differences
    FROM (
        SELECT cell, reference, answer, round(difference, 9) AS difference, count(*) AS n FROM paired GROUP BY ALL
    ) GROUP BY ALL
), batches AS (
    SELECT cell, reference, answer, list({'total': total, 'size': size}) AS batches
    FROM (
        SELECT cell, reference, answer, sum(difference) AS total, count(*) AS size
        FROM paired WHERE block IS NOT NULL GROUP BY cell, reference, answer, block
    ) GROUP BY ALL
)
SELECT cell, reference, answer, differences, batches
FROM histogram LEFT JOIN batches USING (cell, reference, answer)
ORDER BY cell, reference, answer
