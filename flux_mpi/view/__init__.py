"""What people look at: tables in user-defined formats, progress bars, trees."""
