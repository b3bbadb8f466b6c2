"""Where bars and signals come from: recorded Parquet files, signal files, and a simulated market."""
