"""Deploy: what does Visor own on Google Cloud, what does it use of the free tier, and how does it get there?"""
