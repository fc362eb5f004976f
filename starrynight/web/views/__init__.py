"""The four pages, one file each, with a function ``show()``.

The folder is not called ``pages``: Streamlit would turn a folder of that name beside the script into a
navigation of its own.
"""
