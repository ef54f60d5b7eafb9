-- Eq. 5 and Eq. 6 of the RNA paper against measurement, for each norm and layer of the networks of a sweep ($sweep): means
-- over images, where queries/smoothness.sql gives medians. `held` counts the images (averaged over seeds) on which the
-- measured value is not above the formula's, but for rounding. Where the gradient is zero there is no direction to
-- measure a curvature along: such images are left out of Eq. 6.
WITH asked AS (
    SELECT unit_id, variant, axes, min(position) AS position
    FROM plans WHERE sweep = $sweep AND kind = 'probe' GROUP BY ALL
), measured AS (
    SELECT variant, axes, min(position) AS position, member, layer, x AS depth, example,
        max(value) FILTER (measure = 'gradient_norm') AS gradient_norm,
        max(value) FILTER (measure = 'gradient_norm_eq5') AS gradient_norm_eq5,
        max(value) FILTER (measure = 'curvature') AS curvature,
        max(value) FILTER (measure = 'curvature_eq6') AS curvature_eq6
    FROM measures JOIN asked USING (unit_id) WHERE probe = 'smoothness' GROUP BY ALL
), both_sides AS (
    SELECT 'eq5' AS panel, variant, axes, position, member, layer, depth, example,
        gradient_norm AS measured, gradient_norm_eq5 AS formula FROM measured
    UNION ALL
    SELECT 'eq6', variant, axes, position, member, layer, depth, example, curvature, curvature_eq6
    FROM measured WHERE gradient_norm > 0
), by_example AS (
    SELECT panel, variant, member, layer, depth, example, min(position) AS position, count(DISTINCT axes) AS seeds,
        avg(measured) AS measured, avg(formula) AS formula,
        avg((measured <= formula + 1e-9 * greatest(abs(measured), abs(formula)))::INT) AS held
    FROM both_sides WHERE measured IS NOT NULL AND formula IS NOT NULL
    GROUP BY ALL
)
SELECT panel, variant, member, layer, depth::INT AS depth, round(avg(held), 12) AS held,
    avg(measured) AS measured, stddev_samp(measured) / sqrt(count(*)) AS measured_error,
    avg(formula) AS formula, stddev_samp(formula) / sqrt(count(*)) AS formula_error,
    count(*) AS n, max(seeds) AS seeds
FROM by_example
GROUP BY panel, variant, member, layer, depth
ORDER BY min(position), variant, panel, member, depth
