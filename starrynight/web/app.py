"""A page that says that the pages are being built."""

import streamlit as st

st.title("璀璨星河 Starry Night")
