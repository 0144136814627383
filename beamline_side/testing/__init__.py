"""For the authors of writers and components, and for notebooks: a site in one process, and what is relied on in a writer."""
