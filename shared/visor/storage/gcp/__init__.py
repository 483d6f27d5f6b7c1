"""The stores on Google Cloud: Cloud Storage, Firestore and Pub/Sub."""
