"""The senses: what a picture shows, and which pictures a sentence means."""
