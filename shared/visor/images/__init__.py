"""Images: how does an address become safe, upright RGB pixels, and which picture is it the same as?"""
