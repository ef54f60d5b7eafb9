-- Eq. 5 and Eq. 6 of the RNA paper against measurement, for each norm and layer of the networks of a sweep ($sweep): means
-- over examples, and the share of them on which the measured value is no larger than the formula's, but for rounding.
WITH asked AS (
    SELECT unit_id, variant, axes, min(position) AS position
    FROM plans WHERE sweep = $sweep AND kind = 'probe' GROUP BY ALL
), measured AS (
    SELECT variant, axes, position, example, member, layer, measure, value
    FROM asked JOIN measures USING (unit_id) WHERE probe = 'smoothness' AND example IS NOT NULL
), formulas AS (
    SELECT unnest(['eq5', 'eq6']) AS panel, unnest(['gradient_norm', 'curvature']) AS quantity,
        unnest(['gradient_norm_eq5', 'curvature_eq6']) AS formula
), by_example AS (
    SELECT panel, variant, member, layer, example, min(a.position) AS position, count(DISTINCT a.axes) AS seeds,
        avg(a.value) AS measured, avg(b.value) AS formula,
        avg((a.value <= b.value + 1e-5 * abs(b.value) + 1e-12)::INT) AS holds
    FROM formulas JOIN measured AS a ON a.measure = formulas.quantity
        JOIN measured AS b ON b.measure = formulas.formula
            AND (a.variant, a.axes, a.example, a.member, a.layer) = (b.variant, b.axes, b.example, b.member, b.layer)
    WHERE NOT isnan(a.value) AND NOT isnan(b.value)
    GROUP BY ALL
)
SELECT panel, variant, member, layer,
    avg(measured) AS measured, stddev_samp(measured) / sqrt(count(*)) AS measured_error,
    avg(formula) AS formula, stddev_samp(formula) / sqrt(count(*)) AS formula_error,
    avg(holds) AS holds, count(*) AS n, max(seeds) AS seeds
FROM by_example
GROUP BY panel, variant, member, layer
ORDER BY min(position), variant, panel, member, layer
