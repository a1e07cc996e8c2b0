"""The appliance command: nouns, then verbs."""
