-- How strong the attack of each cell was, for the cells in the tables of queries/scores.sql.
SELECT cell AS number, any_value(evaluations.attack) AS name, any_value(steps) AS steps
FROM asked JOIN evaluations USING (unit_id)
GROUP BY cell
ORDER BY cell
