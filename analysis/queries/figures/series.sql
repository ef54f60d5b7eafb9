-- What each cell in the tables of queries/scores.sql varies that accuracy may be drawn against: the attack's radius, the
-- images answered together, the network's norm; how the network was trained; and on which variant's network the attack was
-- crafted, where that was another one. Needs queries/figures/networks.sql.
SELECT cell AS number, any_value(evaluations.attack) AS name, any_value(batch) AS batch, any_value(norm) AS norm,
    any_value(training) AS training, any_value(asked.source) AS source
FROM asked JOIN evaluations USING (unit_id) JOIN networks ON networks.id = evaluations.network_id
GROUP BY cell
ORDER BY cell
