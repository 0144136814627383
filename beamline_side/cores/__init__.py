"""The pure cores of the services: events in, effects out, time as an argument."""
