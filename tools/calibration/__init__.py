"""How the engine behaves on recorded bars: measuring, comparing policies, plotting, and the page that says so."""
