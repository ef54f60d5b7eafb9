-- Fills in by_example and by_seed of scores.sql under one answer (variable answer). Two looks at the store are quicker than one
-- that groups in two ways.
INSERT INTO by_example
SELECT cell, getvariable('answer'), example, count(*), avg(score), avg(natural_score), avg(path_variance) / count(*)
FROM scores(getvariable('answer')) GROUP BY cell, example;

INSERT INTO by_seed
SELECT cell, getvariable('answer'), seed, avg(score) FROM scores(getvariable('answer')) GROUP BY cell, seed;
