"""Link check: are pictures and pages still there, and what happens if not?"""
