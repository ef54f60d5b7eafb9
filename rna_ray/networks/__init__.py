"""What is trained: norm layers, random paths over them, and the networks built with them."""
