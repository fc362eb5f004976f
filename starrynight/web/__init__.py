"""The door of the browser: four rooms drawn with Streamlit, over the same gallery, queue and lab as the other doors."""
