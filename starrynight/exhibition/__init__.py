"""What leaves the gallery to be shown elsewhere: a page that stands alone, a poster and a catalogue for print."""
