"""Everything that proves the appliance; docs/REQUIREMENTS.md says which test proves what."""
