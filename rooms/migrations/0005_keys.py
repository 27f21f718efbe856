from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("rooms", "0004_redis_history"),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="message",
            name="rooms_message_time",
        ),
        migrations.AddIndex(
            model_name="message",
            index=models.Index(
                condition=models.Q(("key__isnull", True)),
                fields=["room", "seq"],
                name="rooms_message_keyless",
            ),
        ),
    ]
