-- Makes by_seed of scores.sql anew under one answer (variable answer) for the cells whose seeds have not all the same images
-- yet, on those that all of them have: on others, what differs between seeds would be the images too.
CREATE OR REPLACE TEMP TABLE uneven AS
SELECT cell, max(seeds) AS seeds FROM by_example WHERE answer = getvariable('answer')
GROUP BY cell HAVING min(seeds) < max(seeds);

DELETE FROM by_seed WHERE answer = getvariable('answer') AND cell IN (SELECT cell FROM uneven);

INSERT INTO by_seed
SELECT cell, getvariable('answer'), seed, avg(score)
FROM scores(getvariable('answer')) SEMI JOIN (
    SELECT cell, example FROM by_example JOIN uneven USING (cell, seeds) WHERE answer = getvariable('answer')
) AS whole USING (cell, example)
GROUP BY cell, seed;
