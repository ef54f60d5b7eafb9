-- What each cell in the tables of queries/scores.sql was attacked with, and on which variant's network the attack was
-- crafted, where that was another one.
SELECT cell AS number, any_value(evaluations.attack) AS name, any_value(asked.source) AS source
FROM asked JOIN evaluations USING (unit_id)
GROUP BY cell
ORDER BY cell
