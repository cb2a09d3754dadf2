"""What people see: tables, pages and curves, as text and pictures."""
