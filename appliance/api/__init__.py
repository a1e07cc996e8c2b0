"""The admin API: one route table with the access right per route, thin handlers."""
