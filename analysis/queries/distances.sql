-- How far the attacks without a bound went, over the tables of scores.sql, on images that the network had right in half of
-- its answers or more: one that is wrong from the start has nothing to move.
INSERT INTO distances
SELECT cell, median(l2), median(linf) FROM scores('expected') WHERE unbounded AND natural_score >= 0.5 GROUP BY cell;
