"""What runs leave behind: downloads, archives, tables, properties and buckets."""
