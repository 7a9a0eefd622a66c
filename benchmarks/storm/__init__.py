"""`make storm`: many events, some of them again and again and out of order, against killed workers."""
