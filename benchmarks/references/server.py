"""gunicorn as the receiver ran it when these references were written: two processes of eight
threads, kept-alive connections, no access log.
"""

bind = "127.0.0.1:8000"  # overruled by the command line
workers = 2
threads = 8
worker_class = "gthread"
keepalive = 65
timeout = 60
graceful_timeout = 20
backlog = 1024
accesslog = None
loglevel = "warning"
control_socket_disable = True
