-- Adds to the means of scores.sql those under one answer ($answer), all in one look at the store.
INSERT INTO means
SELECT cell, $answer, seed, example, count(*), avg(score), avg(natural_score),
    CASE WHEN count(path_variance) = count(*) THEN sum(path_variance) / count(*) ** 2 END
FROM scores($answer)
GROUP BY GROUPING SETS ((cell, example), (cell, seed));
