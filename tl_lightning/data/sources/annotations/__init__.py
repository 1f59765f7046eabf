"""What annotation tools export of a classification: Label Studio, CVAT (also Datumaro and ImageNet's) and Roboflow."""
