-- Eq. 5 and 6 of the RNA paper at each norm layer, along each member taken at every layer: medians and quartiles over
-- n images, seeds apart. norm_ratio is the gradient's norm at the layer's input over what Eq. 5 gives: 1 but for
-- rounding. projection is that norm over the one of gamma/sigma times g: how much of the scaled gradient GN's two
-- subtracted terms leave, 1 for BGN. eq6_holds is the share of images where the measured curvature is not above Eq.
-- 6's right-hand side, with its 95 % Wilson interval; eq6_ratio is the one over the other, which means little where
-- that is near zero or negative. Images whose gradient is exactly zero have no direction to measure along: they are in
-- n, and counted in zero.
WITH asked AS (
    SELECT sweep, variant, attack AS probe, axes, unit_id, min(position) AS position
    FROM plans WHERE kind = 'probe' GROUP BY ALL
), by_example AS (
    SELECT sweep, variant, probe, axes, min(position) AS position, member, layer, x AS depth, example,
        max(value) FILTER (measure = 'gradient_norm') AS gradient_norm,
        max(value) FILTER (measure = 'gradient_norm_eq5') AS gradient_norm_eq5,
        max(value) FILTER (measure = 'gradient_norm_scaled') AS gradient_norm_scaled,
        max(value) FILTER (measure = 'curvature') AS curvature,
        max(value) FILTER (measure = 'curvature_eq6') AS curvature_eq6
    FROM (
        SELECT unit_id, measure, example, member, layer, x, value FROM measures WHERE probe = 'smoothness'
    ) JOIN asked USING (unit_id)
    GROUP BY ALL
), compared AS (
    SELECT *, gradient_norm > 0 AS directed,
        -- A billionth of slack: for BGN the two are equal, and rounding decides on which side.
        curvature <= curvature_eq6 + 1e-9 * greatest(abs(curvature), abs(curvature_eq6)) AS holds
    FROM by_example
), layers AS (
    SELECT sweep, variant, probe, axes, min(position) AS position, member, layer, depth, count(*) AS n,
        count(*) FILTER (NOT directed) AS zero,
        quantile_cont(gradient_norm, [0.25, 0.5, 0.75]) AS norms,
        quantile_cont(gradient_norm / gradient_norm_eq5, [0.25, 0.5, 0.75]) FILTER (directed) AS norm_ratios,
        quantile_cont(gradient_norm / gradient_norm_scaled, [0.25, 0.5, 0.75]) FILTER (directed) AS projections,
        quantile_cont(curvature, [0.25, 0.5, 0.75]) FILTER (directed) AS curvatures,
        quantile_cont(curvature_eq6, [0.25, 0.5, 0.75]) FILTER (directed) AS rights,
        quantile_cont(curvature / curvature_eq6, [0.25, 0.5, 0.75]) FILTER (directed AND curvature_eq6 <> 0) AS ratios,
        avg(holds::INT) FILTER (directed) AS eq6_holds
    FROM compared GROUP BY ALL
), wilson AS (  -- as in analysis/statistics.py
    SELECT *, n - zero AS m, 1.959963984540054 ** 2 AS z2, (eq6_holds + z2 / (2 * m)) / (1 + z2 / m) AS centre,
        sqrt(z2 * (eq6_holds * (1 - eq6_holds) / m + z2 / (4 * m * m))) / (1 + z2 / m) AS half
    FROM layers
)
SELECT sweep, variant, member, TRY_CAST(regexp_extract(axes, '"seed": ?([0-9]+)', 1) AS BIGINT) AS seed, probe,
    depth::INT AS depth, layer, n, zero,
    norms[2] AS gradient_norm, norms[1] AS gradient_norm_25, norms[3] AS gradient_norm_75,
    norm_ratios[2] AS norm_ratio, norm_ratios[1] AS norm_ratio_25, norm_ratios[3] AS norm_ratio_75,
    projections[2] AS projection, projections[1] AS projection_25, projections[3] AS projection_75,
    curvatures[2] AS curvature, curvatures[1] AS curvature_25, curvatures[3] AS curvature_75,
    rights[2] AS curvature_eq6, rights[1] AS curvature_eq6_25, rights[3] AS curvature_eq6_75,
    ratios[2] AS eq6_ratio, ratios[1] AS eq6_ratio_25, ratios[3] AS eq6_ratio_75,
    eq6_holds, greatest(0, round(centre - half, 12)) AS eq6_low, least(1, round(centre + half, 12)) AS eq6_high
FROM wilson
ORDER BY sweep, position, seed, member, depth
