-- The certifications that a sweep ($sweep) asks for, one row a unit; its record is null where it is not there yet. nth
-- tells apart those of one variant and seed.
-- What was stopped early is left out.
WITH halted AS (
    SELECT list(unit_id) AS networks FROM stops
    WHERE sweep = $sweep AND unit_id NOT IN (SELECT unit_id FROM trials)
), asked AS (
    SELECT variant, axes, unit_id, position,
        dense_rank() OVER (PARTITION BY variant, axes ORDER BY position) AS nth
    FROM (
        SELECT DISTINCT variant, axes, unit_id, position FROM plans CROSS JOIN halted
        WHERE sweep = $sweep AND kind = 'certify' AND list_has_any(needs, networks) IS NOT TRUE
    )
)
SELECT variant, nth, axes, unit_id, min(position) OVER (PARTITION BY variant) AS first, data, checkpoint, noise_255,
    draws, selection, abandon
FROM asked LEFT JOIN certifications USING (unit_id)
ORDER BY first, variant, nth, axes, start, unit_id
