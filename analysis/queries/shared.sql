-- What the paths that images of a batch share add to the variance of a cell's sum of scores, over the tables of scores.sql.
INSERT INTO shared_paths
WITH drawn AS (  -- each batch's share of the cell's score, draw by draw: the draws of a batch are independent
    SELECT cell, seed, block, draw, sum(hit::INT / seeds) AS total
    FROM (
        SELECT cell, seed, block, seeds, unnest(list_transform(predictions, lambda given: given = label)) AS hit,
            unnest(range(len(predictions))) AS draw
        FROM (SELECT * FROM scores('expected') WHERE shared)
            JOIN (SELECT * FROM by_example SEMI JOIN blocks USING (cell, example) WHERE answer = 'expected') USING (cell, example)
    ) GROUP BY ALL
), batches AS (
    SELECT cell, var_samp(total) / count(*) AS squared_error, count(*) - 1 AS df FROM drawn GROUP BY cell, seed, block
)
SELECT cell, CASE WHEN bool_and(df > 0) THEN sum(squared_error) END, sum(df) FROM batches GROUP BY cell;
