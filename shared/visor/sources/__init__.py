"""Sources: which plugin reads which kind of catalogue?"""
