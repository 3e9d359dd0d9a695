"""The install pages: one folder per release, one page per topic, one section per fix."""
