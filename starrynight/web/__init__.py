"""The browser interface: five pages drawn with Streamlit over the gallery, the job queue and the lab."""
