-- How far the attacks without a bound went, over the tables of scores.sql.
INSERT INTO distances
SELECT cell, median(l2), median(linf) FROM scores('expected') WHERE unbounded GROUP BY cell;
