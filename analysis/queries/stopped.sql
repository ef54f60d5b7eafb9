-- The networks that a sweep ($sweep) trains no further, as other points of its search are ahead; the longest trained first.
SELECT DISTINCT variant, axes, epoch
FROM plans JOIN stops USING (sweep, unit_id) ANTI JOIN trials USING (unit_id)
WHERE sweep = $sweep AND kind = 'train'
ORDER BY epoch DESC, variant, axes
