-- The certifications that a sweep ($sweep) asks for, one row a unit; its record is null where it is not there yet. nth
-- tells apart those of one variant and seed.
WITH asked AS (
    SELECT variant, axes, unit_id, position,
        dense_rank() OVER (PARTITION BY variant, axes ORDER BY position) AS nth
    FROM (SELECT DISTINCT variant, axes, unit_id, position FROM plans WHERE sweep = $sweep AND kind = 'certify')
)
SELECT variant, nth, axes, unit_id, min(position) OVER (PARTITION BY variant) AS first, data, checkpoint, noise_255,
    draws, selection, abandon
FROM asked LEFT JOIN certifications USING (unit_id)
ORDER BY first, variant, nth, axes, start, unit_id
