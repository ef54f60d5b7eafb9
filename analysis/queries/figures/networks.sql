-- Every network of the store by its id, with how it was trained: the other queries of figures look it up here.
CREATE OR REPLACE TEMP VIEW networks AS
SELECT unit_id AS id, norm, log2_paths, seed,
    CASE objective WHEN 'natural' THEN 'natural' WHEN 'imported' THEN 'imported' ELSE 'adversarial' END AS training
FROM trials
