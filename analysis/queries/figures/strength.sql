-- How strong the attack of each cell was, for the cells in the tables of queries/scores.sql whose own network was
-- attacked, on the cross-entropy, and from one start.
SELECT cell AS number, any_value(evaluations.attack) AS name, any_value(steps) AS steps
FROM asked JOIN evaluations USING (unit_id)
WHERE source_id IS NULL AND NOT contains(attack_settings, '"loss"') AND coalesce(restarts, 1) = 1
GROUP BY cell
ORDER BY cell
