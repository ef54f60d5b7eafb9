-- Fills in by_example and by_seed of scores.sql under one answer (variable answer). Two looks at the store are quicker than one
-- that groups in two ways.
INSERT INTO by_example
SELECT cell, getvariable('answer'), example, count(*), avg(score), avg(natural_score), avg(path_variance) / count(*)
FROM scores(getvariable('answer')) GROUP BY cell, example;

INSERT INTO by_seed  -- on images that all of a cell's seeds have: on others, what differs is the images too
WITH whole AS (
    SELECT cell, example FROM by_example JOIN (
        SELECT cell, max(seeds) AS seeds FROM by_example WHERE answer = getvariable('answer') GROUP BY cell
    ) USING (cell, seeds) WHERE answer = getvariable('answer')
)
SELECT cell, getvariable('answer'), seed, avg(score) FROM scores(getvariable('answer')) SEMI JOIN whole USING (cell, example)
GROUP BY cell, seed;
