-- On what the rows of a sweep ($sweep) were measured: one row for each of its networks and seeds that is there, and how
-- many of its measurements are still missing.
WITH halted AS (  -- networks that the sweep trains no further: what is left out for that is not missing
    SELECT list(unit_id) AS networks FROM stops
    WHERE sweep = $sweep AND unit_id NOT IN (SELECT unit_id FROM trials)
), asked AS (
    SELECT DISTINCT unit_id, kind FROM plans CROSS JOIN halted
    WHERE sweep = $sweep AND kind IN ('evaluate', 'probe', 'certify') AND list_has_any(needs, networks) IS NOT TRUE
), missing AS (
    SELECT count(*) AS missing FROM asked
        LEFT JOIN (
            SELECT unit_id FROM evaluations UNION ALL SELECT unit_id FROM probes UNION ALL SELECT unit_id FROM certifications
        ) AS done USING (unit_id)
    WHERE done.unit_id IS NULL
)
SELECT DISTINCT variant, unit_id, norm, objective, network, width, data, train_examples, epochs, seed,
    trials.attack AS inner_attack, precision,
    paths_drawn = 'batch' AND log2_paths > 0 AS shares_paths, missing
FROM plans JOIN trials USING (unit_id) CROSS JOIN missing
WHERE sweep = $sweep AND kind IN ('train', 'import')
ORDER BY variant, seed
