"""Weight formats, one file each: what arrays are called there, and what lies beside them."""
