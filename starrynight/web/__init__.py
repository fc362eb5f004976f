"""The browser interface: four pages drawn with Streamlit over the gallery, the job queue and the lab."""
