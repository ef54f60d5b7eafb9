-- The counts of each image of a certification unit ($units), as they were stored.
SELECT unit_id, example, label, sigma, selection_counts, counts, abandoned
FROM certificates WHERE list_contains($units, unit_id)
ORDER BY unit_id, example
